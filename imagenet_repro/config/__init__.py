"""The configuration schema and the functions that read it."""

from imagenet_repro.config.load import (
    AdamW as AdamW,
)
from imagenet_repro.config.load import (
    AnyConfig as AnyConfig,
)
from imagenet_repro.config.load import (
    Augment as Augment,
)
from imagenet_repro.config.load import (
    AutoAugment as AutoAugment,
)
from imagenet_repro.config.load import (
    BagOfWords as BagOfWords,
)
from imagenet_repro.config.load import (
    CenterCrop as CenterCrop,
)
from imagenet_repro.config.load import (
    Channel as Channel,
)
from imagenet_repro.config.load import (
    Checkpoint as Checkpoint,
)
from imagenet_repro.config.load import (
    Code as Code,
)
from imagenet_repro.config.load import (
    Codebook as Codebook,
)
from imagenet_repro.config.load import (
    Config as Config,
)
from imagenet_repro.config.load import (
    Cosine as Cosine,
)
from imagenet_repro.config.load import (
    Crop as Crop,
)
from imagenet_repro.config.load import (
    Data as Data,
)
from imagenet_repro.config.load import (
    DecayMask as DecayMask,
)
from imagenet_repro.config.load import (
    Exponential as Exponential,
)
from imagenet_repro.config.load import (
    FeatureConfig as FeatureConfig,
)
from imagenet_repro.config.load import (
    FisherVector as FisherVector,
)
from imagenet_repro.config.load import (
    InceptionCrop as InceptionCrop,
)
from imagenet_repro.config.load import (
    Kernel as Kernel,
)
from imagenet_repro.config.load import (
    Lamb as Lamb,
)
from imagenet_repro.config.load import (
    Linear as Linear,
)
from imagenet_repro.config.load import (
    Llc as Llc,
)
from imagenet_repro.config.load import (
    Loss as Loss,
)
from imagenet_repro.config.load import (
    Model as Model,
)
from imagenet_repro.config.load import (
    NoPolicy as NoPolicy,
)
from imagenet_repro.config.load import (
    Optimizer as Optimizer,
)
from imagenet_repro.config.load import (
    PadCrop as PadCrop,
)
from imagenet_repro.config.load import (
    Plateau as Plateau,
)
from imagenet_repro.config.load import (
    Policy as Policy,
)
from imagenet_repro.config.load import (
    Progressive as Progressive,
)
from imagenet_repro.config.load import (
    RandAugment as RandAugment,
)
from imagenet_repro.config.load import (
    RmsProp as RmsProp,
)
from imagenet_repro.config.load import (
    Sample as Sample,
)
from imagenet_repro.config.load import (
    ScaleJitterCrop as ScaleJitterCrop,
)
from imagenet_repro.config.load import (
    Schedule as Schedule,
)
from imagenet_repro.config.load import (
    Sgd as Sgd,
)
from imagenet_repro.config.load import (
    ShorterSideCrop as ShorterSideCrop,
)
from imagenet_repro.config.load import (
    Sigmoid as Sigmoid,
)
from imagenet_repro.config.load import (
    Softmax as Softmax,
)
from imagenet_repro.config.load import (
    SquashCrop as SquashCrop,
)
from imagenet_repro.config.load import (
    Steps as Steps,
)
from imagenet_repro.config.load import (
    SuperVector as SuperVector,
)
from imagenet_repro.config.load import (
    Svm as Svm,
)
from imagenet_repro.config.load import (
    TimmRandAugment as TimmRandAugment,
)
from imagenet_repro.config.load import (
    build as build,
)
from imagenet_repro.config.load import (
    flatten as flatten,
)
from imagenet_repro.config.load import (
    key as key,
)
from imagenet_repro.config.load import (
    literal as literal,
)
from imagenet_repro.config.load import (
    load as load,
)
from imagenet_repro.config.load import (
    put as put,
)
from imagenet_repro.config.load import (
    read as read,
)
from imagenet_repro.config.load import (
    replace as replace,
)
from imagenet_repro.config.load import (
    resolve as resolve,
)
from imagenet_repro.config.load import (
    to_dict as to_dict,
)
