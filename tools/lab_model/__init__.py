"""How the lab's bundled model was made and measured."""
