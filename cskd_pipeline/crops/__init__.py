"""Crops: (recipe, seed, sample) -> pixels, the same bits everywhere and for as long as stored labels live.

`recipe` draws the parameters of crops (NumPy only), `render` turns a decoded image and one draw into uint8
pixels, `finish` erases, mixes and normalises a batch on the model's device. `docs/recipe.md` is normative.
Letters: n crops, B crops of a batch, S the crop's side in pixels, h w an image's or a region's height and width.
"""
