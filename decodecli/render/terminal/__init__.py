"""Tables, running text and progress at a terminal."""
