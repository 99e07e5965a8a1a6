"""How well a citation tells a claim that its passage bears out from one made of the same words."""
