"""Inspection of trained models: learning curves, first-layer kernels, example predictions and image retrieval.

report.py           figures and HTML page of a run
html_page.py        rendering of the HTML page
plots.py            learning curves and first-layer kernels (paper, Fig. 3)
kernel_colors.py    color statistics of first-layer kernels
examples.py         predictions and retrieved images for example images
figure4.py          figures of predictions and retrieved images (paper, Fig. 4)
confusion_matrix.py figure of a confusion matrix
contact_sheet.py    augmented training images and test views of a data set
indexing.py         building and opening of an index of image features
index.py            reader of the index on disk
index_writer.py     writer of the index on disk
exact_search.py     exact nearest-neighbor search
binary_codes.py     encoders of features to binary codes, and search by Hamming distance
code_search.py      search of an index by binary codes, then by exact distances
"""
