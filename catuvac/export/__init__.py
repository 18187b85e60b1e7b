"""Trained models for devices without PyTorch: ONNX graphs from samples to clusters, and what they cost there."""
