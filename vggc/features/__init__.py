"""What nets make of pictures for others to use: features in files, and linear classifiers."""
