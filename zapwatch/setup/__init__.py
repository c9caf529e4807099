"""``zapwatch init``: from nothing to a gateway that is watched and somebody who is told."""
