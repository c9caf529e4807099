"""What the tests share: servers, waiting, PixelHub's side of things."""
