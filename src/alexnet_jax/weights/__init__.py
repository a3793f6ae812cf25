"""Trained models in memory and on disk, one module per file format.

trained_model.py      the model in memory; `load` and `save`
safetensors_file.py   this project's format: parameters, mean image and config in one .safetensors file
state_dict.py         conversion of parameters to PyTorch's names and shapes, which are also Caffe's
pytorch.py            state dicts of PyTorch and torchvision: .safetensors, .pt or .pth
caffe.py              Caffe's weights and mean images: .caffemodel, .npz, a folder of .npy, .h5, .binaryproto
import_weights.py     import of PyTorch, torchvision and Caffe weights as a trained model
"""
