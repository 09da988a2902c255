"""How a picture becomes the input of a net."""
