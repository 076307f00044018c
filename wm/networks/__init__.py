"""Networks of our own, beside torchvision's: what the catalogue offers for inputs that are no pictures."""
