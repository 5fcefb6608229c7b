"""The images: sources, decoding and crops on the host, the loader, augmentation on the device."""
