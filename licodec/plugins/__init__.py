"""licodec inside other programs: imageio, zarr (numcodecs), the desktop. Pillow's plugin is `licodec.pillow`."""
