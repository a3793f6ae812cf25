"""Conversion of images to prepared data sets, and verification of prepared data sets."""
