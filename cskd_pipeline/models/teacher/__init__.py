"""The CNN teacher: any timm model with a spatial feature map, its classifier applied at every grid position."""
