"""What all reports share: self-contained pages, the style of figures, the end of a page."""
