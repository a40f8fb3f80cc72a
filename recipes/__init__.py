"""How the things that decodecli ships were made; not part of the installed package."""
