"""What an encoder is worth: numbers from its vectors alone; nothing here has seen a loss of self-supervision.

Reading order: `features.py` (items -> vectors), `knn.py`, `logistic.py` and `linear.py`, `few_label.py`, then what they are compared with
(`pca.py`, `scratch.py`), and `table.py`, which puts the four rows side by side. `measures.py` needs no label, `projection.py` draws the map.
"""
