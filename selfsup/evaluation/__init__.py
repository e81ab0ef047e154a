"""What an encoder is worth: numbers from its vectors alone; nothing here has seen a loss of self-supervision.

Reading order: `features` (items -> vectors), `knn`, `logistic`, `linear`, `few_label`; then what they are compared with (`pca`,
`bag_of_words`, `scratch`); then `protocol` and `table`, which put the four rows side by side. `measures` needs no labels, `projection`
draws the map; `sts` is of sentences that people have judged, `text_scores` are the official scores of text.
"""
