"""Recipes: YAML 1.2 or a verb's options into a frozen, typed `Recipe`. No torch here."""

from groundup.config.load import build_recipe, load_recipe, recipe_to_yaml
from groundup.config.recipes import ShippedRecipe, copy_recipe, list_recipes, recipe_text
from groundup.config.schema import STAGE_KINDS, Recipe
from groundup.config.words import SETTINGS, settings_text

__all__ = [
    "SETTINGS",
    "STAGE_KINDS",
    "Recipe",
    "ShippedRecipe",
    "build_recipe",
    "copy_recipe",
    "list_recipes",
    "load_recipe",
    "recipe_text",
    "recipe_to_yaml",
    "settings_text",
]
