"""Input pipeline: batches of augmented images from prepared data sets."""
