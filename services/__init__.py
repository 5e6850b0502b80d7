"""Planier's services and the kernel they share."""
