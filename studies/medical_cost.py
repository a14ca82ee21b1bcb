"""A metric of your own for studies/breast_cancer_qa.yaml: what a wrong answer costs, not only that it is wrong.

hpsearch run studies/breast_cancer_qa.yaml --set study=breast_cancer_cost \
    --set evaluation.metrics_file=medical_cost.py --set objective=cost
"""

from hpsearch import metric


@metric(direction="minimize", low=0, high=10, title="cost of errors")
def cost(reference: str, prediction: str) -> float:
    """A tumour that is missed costs ten times as much as a false alarm; no answer at all is a false alarm."""
    if prediction.strip().lower() == reference.lower():
        return 0
    return 10 if reference == "malignant" and prediction.strip().lower() == "benign" else 1
