"""Image similarity search that runs beside an app or a photo library."""
