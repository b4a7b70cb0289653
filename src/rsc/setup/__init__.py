"""What `./rsc` does once: make an environment, choose a torch, install the project. Imports no package."""
