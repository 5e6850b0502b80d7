"""The confidentiality undertaking that a holder signs before the first access; French, as it is shown and signed."""

import hashlib

TEXT = """\
Engagement de confidentialité

J'ai reçu une habilitation nominative à consulter la plateforme partagée entre la Ville et la Préfecture de Police.
Je m'engage à :
- ne consulter que ce qui est nécessaire à mes missions, pour une des finalités de la convention, et l'indiquer ;
- ne communiquer ce que je consulte à aucune personne qui ne soit elle-même habilitée ;
- n'en tirer ni identification de personnes, ni contrôle d'individus, ni évaluation d'agents, ni renseignement ;
- ne prêter à personne mon identité numérique ni ma session ;
- signaler sans délai tout accès anormal dont j'aurais connaissance.
Je sais que chaque consultation est enregistrée, et que cet engagement survit à la fin de mon habilitation.
"""
HASH = hashlib.sha256(TEXT.encode()).digest()
