"""From files to features: decoding, corpora, front ends, splits and the feature cache (design, section 3)."""
