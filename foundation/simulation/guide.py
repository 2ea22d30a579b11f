"""The two files that explain a simulated cohort: to `chiasma prepare`, and to whoever opens the folder."""

from __future__ import annotations

COHORT = r"""# A SIMULATED cohort (chiasma simulate, {patients} patients, seed {seed}{option}): no patient in it exists.
name: simulated

# Barcodes are TCGA-like: SIM-<site>-<number> is the patient, then sample type and vial, as in SIM-01-0001-01A.
# Types 10 (blood) and 11 (normal tissue) are left out; the primary tumour (01) goes before a recurrence (02).
patients:
  barcode: '(?P<patient>SIM-\d{{2}}-\d{{4,}})(?:-(?P<sample_type>\d{{2}})(?P<vial>[A-Z]))?'
  leave_out: ['10', '11']
  primary: ['01', '02']

# One row per patient; the site is where batch effects and part of the missingness come from.
clinical: {{files: clinical.tsv, patient: patient, site: site}}

modalities:
{mri}  rna:
    kind: omics
    source: {{format: matrix, files: rna.tsv.gz, orientation: features_by_samples}}
    transform: [log2p1]
    unit: log2(TPM + 1)
  mutation:
    kind: omics
    # A sequenced patient without a hit is 0 everywhere; one who was not sequenced is absent.
    # New patients for a trained model need `min_patients: 0`: a gene that none of them has hit is 0 too, not absent.
    source:
      format: maf
      files: mutations.maf.gz
      sequenced: sequenced_samples.txt
      genes: covered_genes.txt
      min_patients: {min_patients}
    values: binary
  cnv:
    kind: omics
    source: {{format: segments, files: segments.seg.gz, genome: hg38, resolution: arms}}
    unit: log2 ratio
  protein:
    kind: omics
    source: {{format: h5ad, files: protein.h5ad}}
    unit: relative abundance
  clinical:
    kind: omics
    source:
      format: clinical
      files: clinical.tsv
      patient: patient
      columns:
        age: number
        sex: {{kind: category, categories: [F, M]}}
        stage: {{kind: scale, map: {{I: 1, II: 2, III: 3, IV: 4}}}}

endpoints:
  subtype: {{kind: subtype, column: subtype, classes: [S1, S2, S3, S4]}}
  # Worst first.
  response: {{kind: response, column: response, classes: [PD, SD, PR, CR]}}
  os: {{kind: survival, time: os_days, event: os_event, unit: days}}
  # Severe side effects of treatment; follows a product of two latent numbers, so no linear model of them predicts it.
  toxicity: {{kind: subtype, column: toxicity, classes: ['no', 'yes']}}
  # Until the first seizure, death or the last visit; follows a product of three.
  seizure: {{kind: survival, time: seizure_days, event: seizure_event, unit: days}}
"""

MRI = """  mri:
    kind: image
    channels: [t1, flair]
    # Four sites hand over NIfTI files, in various orientations; the third hands over DICOM series.
    source:
      - {format: nifti, files: 'scans/nifti/{patient}/{channel}.nii.gz'}
      - format: dicom
        files: 'scans/dicom/{patient}'
        series:
          t1: {modality: MR, description: '^T1'}
          flair: {modality: MR, description: FLAIR}
    # Millimetres, and voxels: the field of view is 160 x 192 x 144 mm at every site, in voxels of different size.
    spacing: [4, 4, 6]
    size: [40, 48, 24]
    # Each scanner has a gain and an offset of its own, so an intensity means something within its image only.
    intensity: {rule: percentile, low: 0.5, high: 99.5}
    # Left and right mean something here (the latent `side`), so x is not listed as an axis to mirror.
    mirror: []
"""

SCANS = """| `scans/nifti/<patient>/<t1 or flair>.nii.gz` | volumes of four sites, stored in RAS, LPS or LAS |
| `scans/dicom/<patient>/*.dcm` | series of the third site, T1, FLAIR and localizer in one folder |
"""

ANNOTATIONS = """
# The tumour as drawn on the scans of every second patient; nobody looked at the others.
annotations:
  tumour:
    image: mri
    source: {format: nifti, files: 'masks/{patient}.nii.gz'}
    regions: {tumour: 1}
"""

MASKS = "| `masks/<patient>.nii.gz` | the tumour of every second scanned patient, on the grid of the scan |\n"

ABOUT_SCANS = """Patients' left is marked: a bright capsule is taped to the left temple in every scan.
`truth/lesion_masks/` holds the tumour of every scanned patient on the grid of the scan as it is stored."""

ABOUT_NO_SCANS = "Nobody was scanned, so that many patients take little time and space."

README = """# A SIMULATED cohort

Nothing here was measured and no patient exists: `chiasma simulate --patients {patients} --seed {seed}{option}`
wrote it. The same command writes the same bytes. It is for trying things out, and for tests that need to know the
truth.

| file | what |
|---|---|
| `cohort.yaml` | the cohort for `chiasma prepare` |
{scans}| `rna.tsv.gz` | genes x samples, transcripts per million; some normals (11), second vials and recurrences (02) |
| `mutations.maf.gz`, `sequenced_samples.txt`, `covered_genes.txt` | mutations; samples and genes that were sequenced |
| `segments.seg.gz` | copy-number segments, log2 ratio, hg38; some blood samples (10) |
| `protein.h5ad` | AnnData, samples x proteins, a few not measured |
| `clinical.tsv` | one row per patient: site, age, sex, stage, subtype, response, survival, toxicity, first seizure |
| `pathways.gmt` | gene sets, for the pathway tokenizer |
| `truth/` | what no hospital has; never an input of a model |

{about_scans}

## The truth

Eight numbers per patient (`truth/latent.tsv`) move everything else. They are called by what they do to the tumour in
the scan; each also moves a pathway in the RNA and the protein, three driver genes and two chromosome arms.

| latent | in the scan | also drives |
|---|---|---|
| side | right or left | subtype, survival |
| depth | front or back | subtype, response |
| brightness | FLAIR bright, T1 dark | subtype, survival |
| size | radius | survival, response, stage, age |
| height | top or bottom | toxicity, seizures |
| texture | coarse grain within the tumour | survival, response, toxicity |
| elongation | long from back to front | seizures |
| necrosis | share of the dark core | response, stage, seizures |

Subtype, response and survival follow weighted sums of the latent. Toxicity follows a product, height x texture, and
the first seizure another, height x elongation x necrosis: a linear model of the latent predicts them no better than
chance, so a model has to learn what acts together. Seizures are followed until death or the last visit.

`truth/causal_genes.tsv` and `truth/causal_arms.tsv` hold the weights: log2 expression (rna, protein), log odds of a
mutation, log odds of a gain rather than a loss, each per unit of the latent. `truth/oracle.json` holds, for every
endpoint, the score that someone reaches who knows the latent (for survival also age and stage), and the score of
chance: what lies between them is what can be learned.
"""


def cohort_yaml(patients: int, seed: int, *, scans: bool = True, after: int = 0, annotations: bool = False) -> str:
    """The text of ``cohort.yaml``."""
    drawn = scans and annotations
    text = COHORT.format(
        patients=patients,
        seed=seed,
        mri=MRI if scans else "",
        option=("" if scans else ", without scans")
        + (f", after the first {after}" if after else "")
        + (", with annotations" if drawn else ""),
        # To the model they are new: it wants every gene, also those that none of them has hit.
        min_patients=0 if after else 3,
    )
    return text + (ANNOTATIONS if drawn else "")


def readme(patients: int, seed: int, *, scans: bool = True, after: int = 0, annotations: bool = False) -> str:
    """The text of ``README.md``."""
    drawn = scans and annotations
    return README.format(
        patients=patients,
        seed=seed,
        option=("" if scans else " --no-scans")
        + (f" --after {after}" if after else "")
        + (" --annotations" if drawn else ""),
        scans=(SCANS if scans else "") + (MASKS if drawn else ""),
        about_scans=ABOUT_SCANS if scans else ABOUT_NO_SCANS,
    )
