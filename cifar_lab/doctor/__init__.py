"""`cifar-lab doctor`: can training run here, and if not, what is to be done?"""
