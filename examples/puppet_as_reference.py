"""A person who does not exist as the reference, with everything known about them."""

from likeness import Likeness, read_face
from likeness.puppets import sample_image, sample_person

person = sample_person(seed=11, group="man")
portrait = sample_image(seed=11, person=person, size_px=256, max_yaw_deg=5).frames[0]
clip = Likeness.load().generate("a man img laughs on a street", faces=read_face(portrait), seed=1)
clip.save("runs/puppet.mp4")
print(person.group, f"distance {clip.similarity.mean_distance:.2f}")
