"""Tables of the networks, written by hand from the paper, the original code's layer files, Caffe and torchvision.

A row states everything a layer is defined by. Values that the sources print as a quotient (alpha / size) are written out.
"""

# Class, name, features, kernel, stride, padding, reads, standard deviation of the initial weights, initial bias.
PAPER = """
Conv   conv1   96  11  4  (0,3)  own  0.01  0
ReLU
Norm   size 5  k 2  alpha 0.0001  beta 0.75
MaxPool 3 2
Conv   conv2  256   5  1  (2,2)  own  0.01  1
ReLU
Norm   size 5  k 2  alpha 0.0001  beta 0.75
MaxPool 3 2
Conv   conv3  384   3  1  (1,1)  all  0.01  0
ReLU
Conv   conv4  384   3  1  (1,1)  own  0.01  1
ReLU
Conv   conv5  256   3  1  (1,1)  own  0.01  1
ReLU
MaxPool 3 2
Dense  fc6   4096  all  0.01  1
ReLU
Dropout 0.5
Dense  fc7   4096  all  0.01  1
ReLU
Dropout 0.5
Dense  fc8   1000  all  0.01  0
"""

ONE_GPU = """
Conv   conv1   48  11  4  (0,3)  own  0.01  0
ReLU
Norm   size 5  k 2  alpha 0.0001  beta 0.75
MaxPool 3 2
Conv   conv2  128   5  1  (2,2)  own  0.01  1
ReLU
Norm   size 5  k 2  alpha 0.0001  beta 0.75
MaxPool 3 2
Conv   conv3  192   3  1  (1,1)  own  0.01  0
ReLU
Conv   conv4  192   3  1  (1,1)  own  0.01  1
ReLU
Conv   conv5  256   3  1  (1,1)  own  0.01  1
ReLU
MaxPool 3 2
Dense  fc6   4096  own  0.01  1
ReLU
Dropout 0.5
Dense  fc7   4096  own  0.01  1
ReLU
Dropout 0.5
Dense  fc8   1000  own  0.01  0
"""

SOURCE_145_CONVOLUTIONS = """
Conv   conv1   96  11  4  (0,3)  own  0.01  0
Norm   size 5  k 2  alpha 0.00002  beta 0.75
MaxPool 3 2
ReLU
Conv   conv2  256   5  1  (2,2)  own  0.01  1
ReLU
Norm   size 5  k 2  alpha 0.00002  beta 0.75
SameMapNorm size 5  k 1  alpha 0.00004  beta 0.75
MaxPool 3 2
Conv   conv3  384   3  1  (1,1)  all  0.03  0
ReLU
Conv   conv4  384   3  1  (1,1)  own  0.03  1
ReLU
Conv   conv5  256   3  1  (1,1)  own  0.03  1
MaxPool 3 2
ReLU
"""

SIXTH_CONVOLUTION = """
Conv   conv6  256   3  1  (1,1)  all  0.03  1
ReLU
"""

DENSE = """
Dense  fc6   4096  all  0.01  1
ReLU
Dropout 0.5
Dense  fc7   4096  all  0.01  1
ReLU
Dropout 0.5
"""

TWO_COLUMNS = """
Conv   conv1   96  11  4  (0,3)  own  0.01  0
Norm   size 5  k 2  alpha 0.00002  beta 0.75
MaxPool 3 2
ReLU
Conv   conv2  320   5  1  (2,2)  own  0.01  1
ReLU
Norm   size 5  k 2  alpha 0.00002  beta 0.75
SameMapNorm size 5  k 1  alpha 0.00004  beta 0.75
MaxPool 3 2
Conv   conv3  384   3  1  (1,1)  own  0.03  0
ReLU
Conv   conv4  384   3  1  (1,1)  own  0.03  1
ReLU
Conv   conv5  256   3  1  (1,1)  own  0.03  1
MaxPool 3 2
ReLU
Dense  fc6   8192  own  0.01  1
ReLU
Dropout 0.5
Dense  fc7   4096  own  0.01  1
ReLU
Dropout 0.5
Dense  fc8   1000  all  0.01  0
"""

BVLC_ALEXNET = """
Conv         conv1   96  11  4  (0,0)  own  0.01  0
ReLU
Norm   size 5  k 1  alpha 0.00002  beta 0.75
MaxPool 3 2
GroupedConv  conv2  256   5  1  (2,2)  own  0.01  0.1  groups 2
ReLU
Norm   size 5  k 1  alpha 0.00002  beta 0.75
MaxPool 3 2
Conv         conv3  384   3  1  (1,1)  own  0.01  0
ReLU
GroupedConv  conv4  384   3  1  (1,1)  own  0.01  0.1  groups 2
ReLU
GroupedConv  conv5  256   3  1  (1,1)  own  0.01  0.1  groups 2
ReLU
MaxPool 3 2
Dense  fc6   4096  own  0.005  0.1
ReLU
InvertedDropout 0.5
Dense  fc7   4096  own  0.005  0.1
ReLU
InvertedDropout 0.5
Dense  fc8   1000  own  0.01  0
"""

CAFFENET = """
Conv         conv1   96  11  4  (0,0)  own  0.01  0
ReLU
MaxPool 3 2
Norm   size 5  k 1  alpha 0.00002  beta 0.75
GroupedConv  conv2  256   5  1  (2,2)  own  0.01  1  groups 2
ReLU
MaxPool 3 2
Norm   size 5  k 1  alpha 0.00002  beta 0.75
Conv         conv3  384   3  1  (1,1)  own  0.01  0
ReLU
GroupedConv  conv4  384   3  1  (1,1)  own  0.01  1  groups 2
ReLU
GroupedConv  conv5  256   3  1  (1,1)  own  0.01  1  groups 2
ReLU
MaxPool 3 2
Dense  fc6   4096  own  0.005  1
ReLU
InvertedDropout 0.5
Dense  fc7   4096  own  0.005  1
ReLU
InvertedDropout 0.5
Dense  fc8   1000  own  0.01  0
"""

# PyTorch draws weights uniformly between ±1 / sqrt(inputs): the standard deviations are 1 / sqrt(3 inputs).
TORCHVISION = """
Standardize standardize (58.395,57.12,57.375)
Conv   conv1   64  11  4  (2,2)  own  0.0303  0
ReLU
MaxPool 3 2
Conv   conv2  192   5  1  (2,2)  own  0.0144  0
ReLU
MaxPool 3 2
Conv   conv3  384   3  1  (1,1)  own  0.0139  0
ReLU
Conv   conv4  256   3  1  (1,1)  own  0.0098  0
ReLU
Conv   conv5  256   3  1  (1,1)  own  0.012  0
ReLU
MaxPool 3 2
InvertedDropout 0.5
Dense  fc6   4096  own  0.006  0
ReLU
InvertedDropout 0.5
Dense  fc7   4096  own  0.009  0
ReLU
Dense  fc8   1000  own  0.009  0
"""

QUICKSTART = """
Conv   conv1   32  11  4  (0,3)  own  0.01  0
ReLU
Norm   size 5  k 2  alpha 0.0001  beta 0.75
MaxPool 3 2
Conv   conv2   64   5  1  (2,2)  own  0.05  0
ReLU
Norm   size 5  k 2  alpha 0.0001  beta 0.75
MaxPool 3 2
Conv   conv3   96   3  1  (1,1)  all  0.06  0
ReLU
Conv   conv4   96   3  1  (1,1)  own  0.07  0
ReLU
Conv   conv5   64   3  1  (1,1)  own  0.07  0
ReLU
MaxPool 3 2
Dense  fc6    256  all  0.05  0
ReLU
Dropout 0.8
Dense  fc7    256  all  0.09  0
ReLU
Dropout 0.8
Dense  fc8     10  all  0.01  0
"""

CIFAR_NORM = """
Conv   conv1   64   5  1  (2,2)  own  0.0001  0
ReLU
MaxPool 3 2
Norm   size 9  k 1  alpha 0.000111111  beta 0.75
Conv   conv2   64   5  1  (2,2)  own  0.01  0
ReLU
Norm   size 9  k 1  alpha 0.000111111  beta 0.75
MaxPool 3 2
LocallyConnected  local3  64  3  own  0.04  0
ReLU
LocallyConnected  local4  32  3  own  0.04  0
ReLU
Dense  fc10    10  own  0.01  0
"""

CIFAR_PLAIN = """
Conv   conv1   64   5  1  (2,2)  own  0.0001  0
ReLU
MaxPool 3 2
Conv   conv2   64   5  1  (2,2)  own  0.01  0
ReLU
MaxPool 3 2
LocallyConnected  local3  64  3  own  0.04  0
ReLU
LocallyConnected  local4  32  3  own  0.04  0
ReLU
Dense  fc10    10  own  0.01  0
"""

CIFAR_19PCT = """
Conv   conv1   32   5  1  (2,2)  own  0.0001  0
MaxPool 3 2
ReLU
Conv   conv2   32   5  1  (2,2)  own  0.01  0
ReLU
AvgPool 3 2
Conv   conv3   64   5  1  (2,2)  own  0.01  0
ReLU
AvgPool 3 2
Dense  fc10    10  own  0.01  0
"""

CIFAR_18PCT = """
Conv   conv1   32   5  1  (2,2)  own  0.0001  0
MaxPool 3 2
ReLU
SameMapNorm size 3  k 1  alpha 0.00000555556  beta 0.75
Conv   conv2   32   5  1  (2,2)  own  0.01  0
ReLU
AvgPool 3 2
SameMapNorm size 3  k 1  alpha 0.00000555556  beta 0.75
Conv   conv3   64   5  1  (2,2)  own  0.01  0
ReLU
AvgPool 3 2
Dense  fc10    10  own  0.01  0
"""

CIFAR_80SEC = """
Conv   conv1   32   5  1  (2,2)  own  0.0001  0
MaxPool 3 2
ReLU
Conv   conv2   32   5  1  (2,2)  own  0.01  0
ReLU
AvgPool 3 2
Conv   conv3   64   5  1  (2,2)  own  0.01  0
ReLU
AvgPool 3 2
Dense  fc64    64  own  0.1  0
ReLU
Dense  fc10    10  own  0.1  0
"""

# Towers, side of the input, layers.
PUBLISHED = {
    "two_tower": (2, 224, PAPER),
    "one_gpu": (1, 224, ONE_GPU),
    "sixth_conv": (2, 224, PAPER.replace("Dense  fc6", "Conv conv6 256 3 1 (1,1) all 0.01 1\nReLU\nDense  fc6")),
    "source_145": (2, 224, SOURCE_145_CONVOLUTIONS + DENSE + "Dense fc8 1000 all 0.01 0"),
    "source_146": (2, 224, SOURCE_145_CONVOLUTIONS + SIXTH_CONVOLUTION + DENSE + "Dense fc8 1000 all 0.01 0"),
    "fall2009": (2, 224, SOURCE_145_CONVOLUTIONS + SIXTH_CONVOLUTION + DENSE + "Dense fc8 10184 all 0.01 0"),
    "fall2011": (
        2,
        224,
        SOURCE_145_CONVOLUTIONS + SIXTH_CONVOLUTION + DENSE + "Dense bottleneck 2048 all 0.01 0\nDense fc8 21843 all 0.01 0",
    ),
    "two_columns": (2, 224, TWO_COLUMNS),
    "bvlc_alexnet": (1, 227, BVLC_ALEXNET),
    "caffenet": (1, 227, CAFFENET),
    "torchvision_alexnet": (1, 224, TORCHVISION),
    "quickstart": (2, 112, QUICKSTART),
    "cifar_norm": (1, 24, CIFAR_NORM),
    "cifar_plain": (1, 24, CIFAR_PLAIN),
    "cifar_19pct": (1, 32, CIFAR_19PCT),
    "cifar_18pct": (1, 32, CIFAR_18PCT),
    "cifar_80sec": (1, 32, CIFAR_80SEC),
}
