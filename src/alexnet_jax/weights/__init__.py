"""Weights in and out: one file for each format.

model.py       our own: parameters, mean image and configuration in one .safetensors file
state_dict.py  parameters by PyTorch's names and in its shapes, which are Caffe's, too
pytorch.py     state dicts of PyTorch and torchvision, .safetensors, .pt or .pth
caffe.py       Caffe's weights and mean image: .caffemodel, .npz, a folder of .npy, .h5, .binaryproto
protobuf.py    the bytes of a .caffemodel
importing.py   any of these as a trained network
commands.py    the commands `export` and `import`
"""
