"""The built-in model's recipe: corpus, tokenizer, training, evaluation; run it from the repository.

`python -m recipes.builtin_model.train --corpora DIR`, `python -m recipes.builtin_model.evaluate`.
"""
