"""The words, tables and captions of each question."""
