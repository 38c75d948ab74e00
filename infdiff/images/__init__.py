"""Pixel values in, out and converted; folders of images."""
