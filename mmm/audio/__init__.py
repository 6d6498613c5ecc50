"""Sound files and the 16 kHz speech that is in them."""
