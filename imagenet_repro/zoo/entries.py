"""The challenge year by year: what was entered, and what it scored on the hidden test set.

Errors are top-5 in percent on the challenge's test set of the year. They stand here as the papers named print them;
where only the official result pages have a figure, as those pages do. Clarifai never published its network, and of
the entries of 2016 and 2017 the members are known in part: their networks are listed with their own single-model
errors by `models.SPECS`.
"""

import dataclasses

from imagenet_repro.scoring.people import PEOPLE


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of the story that is not a network."""

    year: int
    who: str
    what: str
    top5: float  # percent
    protocol: str
    source: str
    system: str = ""  # of a configuration that trains it here


ENTRIES = (
    Entry(
        2010,
        "NEC-UIUC, winner",
        "six coded features, linear SVMs",
        28.2,
        "test",
        "Krizhevsky et al. 2012, tab. 1",
        "nec_uiuc_2010",
    ),
    Entry(
        2011,
        "XRCE, winner",
        "Fisher vectors, linear SVMs",
        25.8,
        "test",
        "image-net.org, results of 2011",
        "xrce_2011",
    ),
    Entry(2012, "SuperVision, winner", "7 AlexNets, 2 of them with more data", 15.3, "test", "Krizhevsky et al. 2012"),
    Entry(2012, "SuperVision", "5 AlexNets", 16.4, "test", "Krizhevsky et al. 2012, tab. 2"),
    Entry(2013, "Clarifai, winner", "several networks, more data", 11.2, "test", "Simonyan & Zisserman 2014, tab. 7"),
    Entry(2013, "Clarifai", "several networks", 11.7, "test", "Simonyan & Zisserman 2014, tab. 7"),
    Entry(2014, "GoogLeNet, winner", "7 networks, 144 crops", 6.67, "test", "Szegedy et al. 2014, tab. 3"),
    Entry(2014, "VGG, second", "7 networks, dense", 7.3, "test", "Simonyan & Zisserman 2014, tab. 7"),
    *(Entry(2014, one.who, one.practice, round(100 * one.error, 1), one.protocol, one.source) for one in PEOPLE),
    Entry(2015, "MSRA, winner", "6 ResNets", 3.57, "test", "He et al. 2015, tab. 5"),
    Entry(2016, "Trimps-Soushen, winner", "Inceptions, ResNets fused", 2.99, "test", "Hu et al. 2017"),
    Entry(2017, "WMW, winner", "an ensemble of SENets", 2.25, "test", "Hu et al. 2017"),
)
