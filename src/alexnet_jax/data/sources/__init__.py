"""Sources of labeled images that `prepare` reads: folders and archives, CIFAR, TensorFlow Datasets, and synthetic images."""
