"""Real streets and squares of Marseille as rough lines, written from general knowledge: (longitude, latitude)."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

Line = Sequence[tuple[float, float]]
Centre = tuple[tuple[float, float], float, float]

VIEUX_PORT = (5.3741, 43.2955)
REFORMES = (5.3846, 43.2996)
CASTELLANE = (5.3838, 43.2862)
PRADO = (5.3925, 43.2724)
JOLIETTE = (5.3664, 43.3046)
PORTE_AIX = (5.3745, 43.3033)
PREFECTURE = (5.3802, 43.2900)

STREETS: Mapping[str, Line] = MappingProxyType(
    {
        "La Canebière": [VIEUX_PORT, (5.3772, 43.2964), (5.3806, 43.2979), REFORMES],
        "Rue de Rome": [(5.3782, 43.2962), (5.3803, 43.2925), PREFECTURE, CASTELLANE],
        "Avenue du Prado": [CASTELLANE, (5.3858, 43.2823), (5.3890, 43.2770), PRADO],
        "Boulevard Michelet": [PRADO, (5.3958, 43.2698), (5.4003, 43.2620), (5.4030, 43.2540)],
        "Rue de la République": [VIEUX_PORT, (5.3712, 43.2985), (5.3692, 43.3016), JOLIETTE],
        "Cours Belsunce": [(5.3763, 43.2964), (5.3758, 43.2991), PORTE_AIX],
        "Boulevard Baille": [CASTELLANE, (5.3888, 43.2874), (5.3950, 43.2889), (5.4013, 43.2899)],
        "Cours Lieutaud": [(5.3822, 43.2978), (5.3829, 43.2929), (5.3838, 43.2880)],
        "Boulevard Chave": [(5.3869, 43.2950), (5.3930, 43.2952), (5.4022, 43.2942)],
        "Boulevard National": [(5.3838, 43.3008), (5.3826, 43.3061), (5.3784, 43.3116)],
        "Corniche Kennedy": [(5.3500, 43.2880), (5.3520, 43.2820), (5.3600, 43.2760), (5.3700, 43.2680)],
        "Quai du Port": [VIEUX_PORT, (5.3710, 43.2962), (5.3660, 43.2957)],
        "Boulevard de Paris": [(5.3697, 43.3079), (5.3708, 43.3122), (5.3722, 43.3168)],
        "Boulevard Longchamp": [REFORMES, (5.3890, 43.3020), (5.3945, 43.3042)],
        "Avenue de Mazargues": [PRADO, (5.3935, 43.2650), (5.3985, 43.2560)],
        "Boulevard Rabatau": [(5.3935, 43.2727), (5.4000, 43.2755), (5.4050, 43.2790)],
    }
)

# The usual ways of a march, as chains of the streets above.
MARCHES: Sequence[Line] = (
    [*STREETS["La Canebière"]],
    [REFORMES, (5.3806, 43.2979), (5.3782, 43.2962), (5.3803, 43.2925), PREFECTURE, CASTELLANE],
    [VIEUX_PORT, (5.3772, 43.2964), (5.3782, 43.2962), (5.3803, 43.2925), PREFECTURE],
    [PORTE_AIX, (5.3758, 43.2991), (5.3763, 43.2964), VIEUX_PORT],
    [CASTELLANE, (5.3858, 43.2823), (5.3890, 43.2770), PRADO],
    [JOLIETTE, (5.3692, 43.3016), (5.3712, 43.2985), VIEUX_PORT],
)

# Squares that hold a market, and the days of the week it comes (Monday is 0).
MARKETS: Sequence[tuple[str, tuple[float, float], Sequence[int]]] = (
    ("Marché de la Plaine", (5.3872, 43.2951), (1, 3, 5)),
    ("Marché du Prado", (5.3858, 43.2823), (0, 1, 2, 3, 4, 5)),
    ("Marché des Capucins", (5.3798, 43.2963), (0, 1, 2, 3, 4, 5)),
    ("Marché aux poissons du Vieux-Port", (5.3738, 43.2956), (0, 1, 2, 3, 4, 5, 6)),
    ("Marché paysan du cours Julien", (5.3829, 43.2935), (2,)),
    ("Marché de la Joliette", (5.3662, 43.3043), (0, 2, 4)),
    ("Marché de Saint-Barnabé", (5.4180, 43.3035), (2, 5)),
)

VELODROME = (5.3959, 43.2698)

# Where past facts gather: centre, spread in degrees, weight. Land only; the sea is on the west side.
CENTRES: Sequence[Centre] = (
    ((5.3790, 43.2975), 0.0030, 9.0),
    ((5.3840, 43.2945), 0.0035, 7.0),
    ((5.3770, 43.3035), 0.0035, 6.0),
    ((5.3838, 43.2862), 0.0045, 5.0),
    ((5.3780, 43.3125), 0.0050, 6.0),
    ((5.3925, 43.2730), 0.0060, 4.0),
    ((5.4030, 43.2960), 0.0070, 4.0),
    ((5.3960, 43.3130), 0.0070, 4.0),
    ((5.4200, 43.3050), 0.0090, 3.0),
    ((5.4100, 43.2780), 0.0090, 3.0),
    ((5.4020, 43.2550), 0.0090, 3.0),
    ((5.4300, 43.3300), 0.0110, 3.0),
    ((5.3900, 43.3450), 0.0110, 4.0),
    ((5.3700, 43.3600), 0.0060, 2.0),
    ((5.4600, 43.2950), 0.0120, 2.0),
    ((5.4400, 43.2550), 0.0080, 1.0),
)
