"""Looking into a trained net: what its layers see of an image, and what its classes hang on."""
