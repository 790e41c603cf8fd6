"""What assets and sensors are handed: the open LAB, dbt. Bound once, in the definitions; opened only where used."""

from resources.lab import LabResource

__all__ = ["LabResource"]
