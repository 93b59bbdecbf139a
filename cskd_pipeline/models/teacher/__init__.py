"""The teacher: any timm classifier, its head applied at every position of the feature map, or to every patch token."""
