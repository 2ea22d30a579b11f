"""The letters of shape comments and suffixes, one meaning each, everywhere in the code.

A suffix names the axes in order: ``x_BTD`` is a tensor of batch by tokens by width.

| letter | axis |
| --- | --- |
| B | patients of a batch (records: one patient at one time point) |
| N | records of a whole cohort |
| M | modalities |
| C | channels of an image |
| X, Y, Z | voxels, left to right, posterior to anterior, inferior to superior (RAS) |
| F | features of an omics modality |
| T | tokens |
| D | width of an embedding |
| H | attention heads |
| K | classes |
| R | regions of an annotation |
| S | samples of a source table, before they become patients |
"""
