"""Scans."""


def place_images(listing, findings, progress):
    pass
