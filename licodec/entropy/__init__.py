"""Integers to bytes and back: tables of integer frequencies and the ANS coder.

Numpy in, bytes out. Nothing here knows of models or files.
"""
