"""Trained models for devices without PyTorch: ONNX graphs from samples to clusters, and their cost on a device."""
