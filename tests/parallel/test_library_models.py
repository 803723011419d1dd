from library_models import compared

from trimtab.parallel.launching.script import spawn
from trimtab.spec.layout import Layout


def test_encoders_and_image_models_give_the_losses_of_one_process():
    """BERT masked language modelling and classification, ResNet classification; data, ZeRO-1 and sharded."""
    spawn(compared, Layout(data=2))
