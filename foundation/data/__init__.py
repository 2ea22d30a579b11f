"""From a prepared cohort to batches: preprocessing, alignment, sampling, augmentation, modality dropout."""
