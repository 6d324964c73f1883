"""Recipes: YAML 1.2 or a verb's options into a frozen, typed `Recipe`. No torch here."""

from groundup.config.load import build_recipe, load_recipe, recipe_to_yaml
from groundup.config.recipes import ShippedRecipe, list_recipes, recipe_text, recipes_folder
from groundup.config.schema import STAGE_KINDS, Recipe

__all__ = [
    "STAGE_KINDS",
    "Recipe",
    "ShippedRecipe",
    "build_recipe",
    "list_recipes",
    "load_recipe",
    "recipe_text",
    "recipe_to_yaml",
    "recipes_folder",
]
