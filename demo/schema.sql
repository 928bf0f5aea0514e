CREATE DATABASE shop;
CREATE TABLE shop.items (number INT PRIMARY KEY, alias VARCHAR(64), name VARCHAR(64) NOT NULL);
INSERT INTO shop.items (number, name) VALUES
  (0, 'anvil'), (1, 'basket'), (2, 'candle'), (3, 'drum'), (4, 'easel'), (5, 'flask'), (6, 'globe'), (7, 'hammer'), (8, 'inkwell'), (9, 'jar'),
  (10, 'kettle'), (11, 'lamp'), (12, 'mirror'), (13, 'needle'), (14, 'oar'), (15, 'pan'), (16, 'quilt'), (17, 'rope'), (18, 'saw'), (19, 'table');
CREATE TABLE shop.orders (id VARCHAR(64) PRIMARY KEY, item INT NOT NULL, price INT NOT NULL);
FLUSH PRIVILEGES;
CREATE USER shop@'127.0.0.1' IDENTIFIED BY 'shop';
CREATE USER shop@localhost IDENTIFIED BY 'shop';
GRANT ALL ON shop.* TO shop@'127.0.0.1';
GRANT ALL ON shop.* TO shop@localhost;
