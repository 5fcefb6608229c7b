"""Classifiers on frozen features: what is stored of them, and k-NN, linear heads, logistic and ridge regression."""
