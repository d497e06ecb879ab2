"""How PinSage's configuration was chosen: hours of work on a lake of one's own, so `make bench` leaves it out."""
