"""Read models (`models/`), the engine that feeds them and the builds that replace them."""
